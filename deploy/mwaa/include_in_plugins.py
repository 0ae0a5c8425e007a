"""Leads to the library in `dags/include`, which only DAG files would find on MWAA.

Plugins are loaded by every process, the web server included, and there Airflow has the plugins'
folder on its path but not that of the DAGs. A copy of the library beside the plugins would be
found before `dags/include` everywhere, also by DAG files, and be the old one after each upload of
`dags/`.
"""

from pathlib import Path

from airflow.configuration import conf

__path__ = [str(Path(conf.get("core", "dags_folder")) / "include")]
