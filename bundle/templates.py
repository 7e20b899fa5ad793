# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Finding a workspace template and filling it in: names, host, port. The comments of its project.yml stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from bundle import ROOT
from custom.data.folders import without_tilde
from custom.errors import BundleError

TEMPLATES = ROOT / "workspace_templates"
COMMON = TEMPLATES / "common"
PROJECT = "project.yml"
LOOPBACK = ("localhost", "127.0.0.1")  # hosts whose sites all run on this machine
LONGEST_NAME = 64  # of a certificate's subject
LONGEST_DOMAIN = 40  # with the name of a site it is the name of the site's lead

_EACH_SITE = re.compile(r"^ *# for each site\n(.*?)^ *# end\n", re.MULTILINE | re.DOTALL)
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_DOMAIN = re.compile(rf"({_LABEL}\.)+[A-Za-z]{{2,}}")


@dataclass(frozen=True)
class Wanted:
    """What a template is filled in with.

    Attributes:
        sites: their names.
        host: name or address of the server, under which every site and admin reaches it.
        port: of the server.
        domain: what the admins' names end with (`admin@DOMAIN`).
    """

    sites: tuple[str, ...] = ("site-1", "site-2")
    host: str = "localhost"
    port: int = 8002
    domain: str = "flare.example"

    def check(self) -> None:
        """Raises BundleError if FLARE would refuse a name or the port, or two kits would have one name."""
        if not _DOMAIN.fullmatch(self.domain) or len(self.domain) > LONGEST_DOMAIN:
            expected = f"a domain such as hospital.example, at most {LONGEST_DOMAIN} long"
            raise BundleError(code="option-value", key="--domain", expected=expected, got=repr(self.domain))
        if not self.sites:
            raise BundleError(code="option-value", key="--sites", expected="the name of at least one site", got="none")
        for site in self.sites:
            longest = LONGEST_NAME - len(f"lead-@{self.domain}")  # the lead's certificate has both
            if not _SITE.fullmatch(site) or len(site) > longest:
                expected = f"names of letters, digits, '-' and '_', at most {longest} long"
                raise BundleError(code="option-value", key="--sites", expected=expected, got=repr(site))
        names = [_organisation(name) for name in (*self.sites, self.host)]
        for site in self.sites:
            if names.count(_organisation(site)) > 1 or _organisation(site) == "server":
                problem = "the server, and two sites, cannot have one name, where '-' and '_' are the same"
                raise BundleError(
                    problem, code="option-value", key="--sites", got=site, remedy="choose another name for the site"
                )
        if not _HOST.fullmatch(self.host) or len(self.host) > LONGEST_NAME or self.host == "0.0.0.0":
            raise BundleError(
                code="option-value",
                key="--host",
                expected="the name or IPv4 address of the server",
                got=repr(self.host),
            )
        if not 1 <= self.port <= 65535:
            raise BundleError(code="option-value", key="--port", expected="a number from 1 to 65535", got=self.port)


def _organisation(name: str) -> str:
    """What FLARE tells the rights of leads by; it takes no '-' there."""
    return name.casefold().replace("-", "_")


def split_names(names: Sequence[str]) -> tuple[str, ...]:
    """`a,b c` and `a b c` are the same."""
    return tuple(part.strip() for name in names for part in name.split(",") if part.strip())


def find_template(name_or_path: str) -> Path:
    """The folder of a template of this bundle, by name, or of any other, by path.

    Raises:
        BundleError: there is no such template.
    """
    for folder in ([] if "/" in name_or_path else [TEMPLATES / name_or_path]) + [without_tilde(name_or_path)]:
        if (folder / PROJECT).is_file():
            return folder.resolve()
    names = ", ".join(sorted(path.parent.name for path in TEMPLATES.glob(f"*/{PROJECT}")))
    remedy = f"there are {names}, and a path to a folder with a {PROJECT} will do too"
    raise BundleError("no such template", code="template-unusable", key=name_or_path, remedy=remedy)


def fill_in(folder: Path, wanted: Wanted) -> str:
    """The text of project.yml with the placeholders filled in, and what lies between its marks once for each site.

    Raises:
        BundleError: a value is not as it must be, or the template has another placeholder.
    """
    wanted.check()
    template = str(folder).replace("'", "''")  # in a string of YAML
    values = {"host": wanted.host, "port": wanted.port, "domain": wanted.domain, "template": template}

    def sites(found: re.Match[str]) -> str:
        block = Template(found[1])
        return "".join(block.safe_substitute(site=site, org=site.replace("-", "_")) for site in wanted.sites)

    text = (folder / PROJECT).read_text(encoding="utf-8")
    try:
        return Template(_EACH_SITE.sub(sites, text)).substitute(values)
    except (KeyError, ValueError) as error:
        expected = (
            "no placeholders but $host, $port, $domain and $template, and $site and $org in the part of each site"
        )
        raise BundleError(
            code="template-unusable", key=str(folder / PROJECT), expected=expected, got=str(error)
        ) from error
