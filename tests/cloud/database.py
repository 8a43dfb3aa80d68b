"""MariaDB, which the services keep their tables in.

SQLite would not do: two transfers at the same time are two writers, and
Glance answers the second one "database is locked".
"""

from __future__ import annotations

import getpass
import shutil
import socket
from pathlib import Path

from tests.cloud import HOST
from tests.cloud.service import DATABASE, Service, Site, tool

#: By the user whom they belong to, and who has nothing else. Those of Nova are
#: there without it: this need not be started again for it.
_OWNERS = {"glance": ("glance",), "keystone": ("keystone",), "placement": ("placement",),
           "nova": ("nova", "nova_api", "nova_cell0")}


class Database(Service):
    stage = 0
    # What it stores does not depend on the environment's packages.
    prepare_key = "1"

    def __init__(self, site: Site) -> None:
        super().__init__(site, DATABASE)
        self._data = self.directory / "data"

    @property
    def url(self) -> str:
        return f"mysql://{HOST}:{self.site.state.port(self.name)}"

    def files(self) -> dict[str, str]:
        # Of the users that it brings some have no password. None is needed: the
        # statements of this file are carried out at each start.
        statements = ["DELETE FROM mysql.global_priv WHERE User IN ('', 'root');",
                      "FLUSH PRIVILEGES;"]
        for owner, names in _OWNERS.items():
            user, password = f"{owner}@'{HOST}'", self.site.database_password(owner)
            statements += [f"CREATE USER IF NOT EXISTS {user};",
                           f"ALTER USER {user} IDENTIFIED BY '{password}';"]
            for name in names:
                statements += [f"CREATE DATABASE IF NOT EXISTS {name};",
                               f"GRANT ALL ON {name}.* TO {user};"]
        return {
            "init.sql": "\n".join(statements) + "\n",
            "mariadb.conf": self.ini("mariadb.conf", {"mariadbd": {
                "user": getpass.getuser(), "datadir": self._data,
                "init_file": self.directory / "init.sql",
                "bind_address": HOST, "port": self.site.state.port(self.name),
                # Relative to its data: the path of a socket must be short.
                "socket": "socket", "pid_file": "own-pid",
                "skip_name_resolve": 1, "performance_schema": 0,
                "character_set_server": "utf8mb3", "max_connections": 500,
                "innodb_buffer_pool_size": "64M", "innodb_log_file_size": "32M",
                # Survives its own death; that of the host may take a second with it.
                "innodb_flush_log_at_trx_commit": 2}})}

    def words(self) -> list[str | Path]:
        return [tool("mariadbd"), f"--defaults-file={self.directory / 'mariadb.conf'}"]

    def prepare(self) -> None:
        if self._data.exists():  # not to its end
            shutil.rmtree(self._data)
        # Whatever the others have prepared is not in the new one.
        self.site.state.forget_all()
        self.run(tool("mariadb-install-db"), "--no-defaults", f"--user={getpass.getuser()}",
                 f"--datadir={self._data}", "--auth-root-authentication-method=normal",
                 "--skip-test-db", "--skip-name-resolve")

    def is_ready(self) -> bool:
        """It greets, which it does only after the statements above."""
        try:
            with socket.create_connection((HOST, self.site.state.port(self.name)), 10) as peer:
                return peer.recv(5)[4:] == b"\x0a"  # version of the protocol; 0xff: an error
        except OSError:
            return False
