"""What the check of a use case finds wrong with it."""


class Wrong(Exception):
    """What of the use case has to be changed, in sentences."""

    def __init__(self, *sentences: str):
        super().__init__("; ".join(sentences))
        self.sentences = sentences
