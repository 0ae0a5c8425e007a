"""A second use case, so that the first leaves no trace: will a person see a doctor this year?

20,190 years of people in the RAND Health Insurance Experiment of 1974 to 1982, as the package
statsmodels ships them. They have no dates: 160 of them are dealt to each day.
"""

NAME = "doctor-visits"

FIRST_WINDOW = ("2021-03-01", "2021-04-11")
