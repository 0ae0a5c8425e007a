"""Uploads `dist/mwaa` to the bucket of an MWAA environment.

python -m deploy.upload my-bucket/some/folder

MWAA copies `dags/` from the bucket to its containers all the time, and S3 cannot replace several
objects in one step. So everything is first uploaded next to the live folder, to `dags.new/`. Then
the files that differ are copied within the bucket, the library before the DAG files, and files that
the project no longer has are deleted last. If a step fails, the changes are undone. In the live
folder, only files from earlier deployments are ever deleted.

The other files take effect when the environment is updated with their new versions; the command for
that is printed.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.mwaa import DIST
from deploy.package import DeployError

OTHERS = {
    "plugins.zip": "plugins",
    "requirements.txt": "requirements",
    "startup.sh": "startup-script",
}
"""Other files than `dags/`, and their names in the environment's options."""

LIVE, STAGED, LISTED = "dags/", "dags.new/", "dags.json"
PROBE = ".deploying"
"""Does not exist. Deleting it shows whether we may delete in `dags/`, which undoing needs."""

TO_FILL_IN = "CHANGE-ME"

RIGHTS = "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"
REASONS = {
    "NoSuchBucket": "The bucket does not exist in this account and region. Check BUCKET",
    "AccessDenied": f"You lack rights there. Ask for {RIGHTS}",
    "403": f"You lack rights there, or there is no such bucket. Ask for {RIGHTS}",
    "InvalidAccessKeyId": "AWS does not know your credentials. Log in again",
    "ExpiredToken": "Your credentials have expired. Log in again",
}


@dataclass
class Bucket:
    """A folder in a bucket, and this deployment's changes to it.

    Attributes:
        undo: changed live file → its old content, None if it is new.
    """

    client: Any
    name: str
    prefix: str
    undo: dict[str, bytes | None] = field(default_factory=dict)

    def read(self, path: str) -> bytes | None:
        """A file's content, None if there is none."""
        return self.read_version(path)[0]

    def read_version(self, path: str) -> tuple[bytes | None, str]:
        """A file's content, None if there is none, and its version, if the bucket keeps any."""
        try:
            found = self.client.get_object(Bucket=self.name, Key=self.prefix + path)
        except self.client.exceptions.NoSuchKey:
            return None, ""
        return found["Body"].read(), found.get("VersionId", "")

    def write(self, path: str, content: bytes) -> None:
        """Put a file."""
        self.client.put_object(Bucket=self.name, Key=self.prefix + path, Body=content)

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        self.client.delete_object(Bucket=self.name, Key=self.prefix + path)

    def go_live(self, file: str, before: bytes | None) -> None:
        """Copy a staged file over the live one."""
        self.undo[file] = before
        source = {"Bucket": self.name, "Key": f"{self.prefix}{STAGED}{file}"}
        self.client.copy_object(
            Bucket=self.name, Key=f"{self.prefix}{LIVE}{file}", CopySource=source
        )

    def retire(self, file: str, before: bytes | None) -> None:
        """Delete a live file."""
        self.undo[file] = before
        self.delete(LIVE + file)

    def put_back(self) -> None:
        """Undo all changes to the live folder."""
        for file, before in reversed(list(self.undo.items())):
            if before is None:
                self.delete(LIVE + file)
            elif self.read(LIVE + file) != before:
                self.write(LIVE + file, before)
            del self.undo[file]


def upload(folder: Path, bucket: Bucket) -> dict[str, str]:
    """Deploy a folder that `make mwaa` built.

    Returns:
        The versions of the other files than `dags/`.

    Raises:
        DeployError: it failed; the message says what is live.
    """
    if TO_FILL_IN in (folder / "startup.sh").read_text():
        raise DeployError(
            f"startup.sh still has {TO_FILL_IN}: without these settings, the results of runs would "
            "be lost. Nothing was uploaded. Fill in deploy/mwaa/startup.sh, then make mwaa again."
        )
    dags = folder / "dags"
    files = {
        path.relative_to(dags).as_posix(): path.read_bytes()
        for path in dags.rglob("*")
        if path.is_file()
    }
    with _told(bucket):
        for name in OTHERS:
            content = (folder / name).read_bytes()
            if bucket.read(name) != content:
                bucket.write(name, content)
        earlier = set(json.loads(bucket.read(LISTED) or b"[]"))
        live = {file: bucket.read(LIVE + file) for file in earlier | set(files)}
        different = sorted((file for file in files if files[file] != live[file]), key=_order)
        for file in different:
            bucket.write(STAGED + file, files[file])
        gone = sorted(earlier - set(files))
        if different or gone:
            bucket.write(LISTED, json.dumps(sorted(live)).encode())
            _go_live(bucket, live, different, gone)
            bucket.write(LISTED, json.dumps(sorted(files)).encode())
        for file in different:
            bucket.delete(STAGED + file)
        return {name: bucket.read_version(name)[1] for name in OTHERS}


def _go_live(
    bucket: Bucket, live: dict[str, bytes | None], different: list[str], gone: list[str]
) -> None:
    """Copy staged files and delete removed ones; if a step fails, undo all."""
    bucket.delete(LIVE + PROBE)
    try:
        for file in different:
            bucket.go_live(file, live[file])
        for file in gone:
            bucket.retire(file, live[file])
    except BaseException:
        bucket.put_back()
        raise
    bucket.undo.clear()


def _order(file: str) -> tuple[bool, bool, str]:
    """`.airflowignore` first, then the library, then the DAG files that import it."""
    return (file != ".airflowignore", "/" not in file, file)


@contextmanager
def _told(bucket: Bucket) -> Iterator[None]:
    """Turn an AWS error into one that says what is live."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        why = REASONS.get(code, "Check the connection and your AWS credentials")
        live = "Its live dags/ is unchanged."
        if bucket.undo:
            live = (
                f"ITS LIVE dags/ IS HALF NEW, and could not be put back: {', '.join(bucket.undo)}. "
                "Deploy again as soon as it answers, to complete it."
            )
        raise DeployError(
            f"The upload to s3://{bucket.name}/{bucket.prefix} failed: {error}\n{live}\n"
            f"{why}, then make mwaa-deploy again."
        ) from error


def main() -> int:
    """Upload dist/mwaa, and print the command that updates the environment."""
    import boto3

    parser = argparse.ArgumentParser(prog="python -m deploy.upload", description=main.__doc__)
    parser.add_argument("bucket", help="name, or name/folder")
    name, _, prefix = parser.parse_args().bucket.removeprefix("s3://").strip("/").partition("/")
    place = Bucket(boto3.client("s3"), name, f"{prefix}/" if prefix else "")
    try:
        if not DIST.is_dir():
            raise DeployError("There is no dist/mwaa that has passed its checks: make mwaa first")
        versions = upload(DIST, place)
    except DeployError as error:
        print(error, file=sys.stderr)
        return 1
    options = "".join(
        f" \\\n    --{OTHERS[file]}-s3-path {place.prefix}{file}"
        f" --{OTHERS[file]}-s3-object-version {version or '(turn on the versioning of the bucket)'}"
        for file, version in versions.items()
    )
    print(
        f"s3://{name}/{place.prefix}dags/ is live: MWAA loads it within a minute. The other "
        "files take effect when you update the environment, which restarts it. Do so if "
        "requirements.txt, startup.sh or plugins/ have changed, or to have pages and pools use the "
        "new library:\n"
        f"aws mwaa update-environment --name YOURS{options}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
