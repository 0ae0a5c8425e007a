"""A second use case, so that the first leaves no trace: will a person see a doctor this year?

20,190 years of people in the RAND Health Insurance Experiment of 1974 to 1982, as the package
statsmodels ships them. They have no dates: 160 of them are dealt to each day.
"""

from include.destinations import DeltaTable, SqlTable
from include.usecase import Member, UseCase

USECASE = UseCase(
    name="doctor_visits",
    first_window=("2021-03-01", "2021-04-11"),
    members=[
        Member("shallow_trees", "registry"),
        Member("straight_line", "registry"),
        Member(
            "champion_by_http", "remote", slots=2, connection="model_server", model="doctor_visits"
        ),
    ],
    destinations=[
        DeltaTable(),
        DeltaTable("delta_ensemble", source="ensemble_predictions"),
        SqlTable(
            "warehouse",
            connection="warehouse",
            table="expected_visits",
            columns={
                "day": "day",
                "person": "person",
                "chance_of_a_visit": "score",
                "expected": "decision",
                "model": "model_version",
                "scored_at": "scored_at",
            },
        ),
    ],
)
