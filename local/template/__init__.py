"""What this predicts, in a sentence: it is shown nowhere, but read first.

A small use case on made-up data, to be replaced piece by piece: will a customer leave? What each
piece is says docs/fork.md. After each change: make usecase USECASE=my_usecase
"""

from include.usecase import Member, UseCase

# Every DAG file imports this: it declares, and imports nothing heavy.
USECASE = UseCase(
    name="my_usecase",
    # The history that the first champion is trained on.
    first_window=("2026-01-01", "2026-02-28"),
    # Who is in the ensemble: candidates of models.py, and a server that is asked over HTTP. This
    # one is the project's own, which serves the champion.
    members=[
        Member("trees", "registry"),
        Member("line", "registry"),
        Member("by_http", "remote", slots=2, connection="model_server", model="my_usecase"),
    ],
    # Settings in which it differs from the others: own_settings={"gate_max_auc": 0.9}
)
