"""The mistakes that the check of a use case finds."""


class Wrong(Exception):
    """What must be changed in the use case, as sentences."""

    def __init__(self, *sentences: str):
        super().__init__("; ".join(sentences))
        self.sentences = sentences
