"""Leads to the library in `dags/include`, which only DAG files would find on MWAA.

Plugins are loaded by every process, the web server included, and there Airflow has the plugins'
folder on its path but not that of the DAGs. The copy in `as_built` is of the last restart, and only
for who has no DAG files at all, as the web server may not: beside DAG files, which may be newer, it
is never used, not even if their own library is missing.
"""

from pathlib import Path

from airflow.configuration import conf

_dags = Path(conf.get("core", "dags_folder"))
_home = _dags / "include" if any(_dags.glob("*.py")) else Path(__file__).parent / "as_built"
__path__ = [str(_home)]
