"""What this use case predicts, in one sentence for readers of the code.

A small use case on made-up data, to be replaced piece by piece: what will a customer do next month?
docs/fork.md explains each piece. After each change: make usecase USECASE=my_usecase
"""

from include.usecase import Member, UseCase

# Every DAG file imports this, so it must not import anything heavy.
USECASE = UseCase(
    name="my_usecase",
    # The days on which the first champion is trained.
    first_window=("2026-01-01", "2026-02-28"),
    # The ensemble's members: candidates of models.py, and a server that is asked over HTTP. This
    # one is the project's own, which serves the champion.
    members=[
        Member("trees", "registry"),
        Member("line", "registry"),
        Member("by_http", "remote", slots=2, connection="model_server", model="my_usecase"),
    ],
    # Settings that differ from the installation's. These data are easy to predict.
    own_settings={"gate_max_skill": 0.6},
)
