"""A second use case, so that the first leaves no trace: will a person see a doctor this year?

20,190 years of people in the RAND Health Insurance Experiment of 1974 to 1982, as the package
statsmodels ships them. They have no dates: 160 of them are dealt to each day.
"""

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
)
