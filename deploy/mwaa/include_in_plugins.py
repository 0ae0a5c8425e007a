"""Points to the library in `dags/include`, which only DAG files would find on MWAA.

Every process loads plugins, the web server included. Airflow then has the plugins' folder on its
path, but not that of the DAGs. The copy in `as_built` dates from the last restart, and is only for
processes without any DAG files, possibly the web server. Next to DAG files, which may be newer, it
is never used, not even if their own library is missing.
"""

from pathlib import Path

from airflow.configuration import conf

_dags = Path(conf.get("core", "dags_folder"))
_home = _dags / "include" if any(_dags.glob("*.py")) else Path(__file__).parent / "as_built"
__path__ = [str(_home)]
