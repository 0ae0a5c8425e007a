"""What `make astro` builds is a complete Astro project."""

from pathlib import Path

from deploy import astro


def test_an_astro_project_is_complete_and_leaves_airflow_to_the_runtime(tmp_path: Path) -> None:
    folder = tmp_path / "astro"
    astro.build(folder)
    assert {path.name for path in folder.iterdir()} == {
        ".astro", ".dockerignore", "Dockerfile", "dags", "include", "packages.txt", "plugins",
        "requirements.txt", "tests",
    }  # fmt: skip
    wanted = (folder / "requirements.txt").read_text()
    assert "apache-airflow=" not in wanted
    assert "\napache-airflow-providers-amazon " in wanted
    assert (folder / "Dockerfile").read_text().count("FROM ") == 1
