"""A door to a server, which a test shuts: then the server is away."""

import select
import socket
import socketserver
from threading import Thread


class Door(socketserver.ThreadingTCPServer):
    """Leads to a server, until it is shut: then nobody gets in, and who is inside is thrown out."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.behind, self.shut = ("127.0.0.1", port), False
        Thread(target=self.serve_forever, daemon=True).start()


class Passage(socketserver.BaseRequestHandler):
    server: Door

    def handle(self) -> None:
        if self.server.shut:
            return
        with socket.create_connection(self.server.behind) as there:
            ends = {self.request: there, there: self.request}
            while not self.server.shut:
                for end in select.select(list(ends), [], [], 0.1)[0]:
                    if not (content := end.recv(65_536)):
                        return
                    ends[end].sendall(content)
