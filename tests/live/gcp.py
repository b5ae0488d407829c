"""A project on Google that live tests use: what they need there, made when it is first needed, and found again.

Bucket, balancer and firewall rule are those of examples/google-balancer, of the run's own, so that nothing of the
user's is touched but the network ``default``, which the firewall rule is in.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote

from osvdeploy.cloud import gcp
from osvdeploy.cloud.gcp.backends import write
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.gcp.marks import marks_of
from osvdeploy.cloud.gcp.objects import GcsStore
from osvdeploy.cloud.gcp.scope import address_of, area_of
from osvdeploy.cloud.gcp.session import Document, Gcp, _is_google
from osvdeploy.cloud.interfaces import Ground
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, NotFound
from tests.live import settings
from tests.live.aws import PORT, Once, answers, example
from tests.live.run import PREFIX, TAG, Label, Run
from tests.live.settings import Account
from tests.live.sweeping import Left, Listing


class GcpAccount:
    """One zone of a project.

    Raises :class:`~osvdeploy.errors.CredentialsMissing` where there are none for it.
    """

    def __init__(self, ctx: Context, run: Run) -> None:
        self.gcp = Gcp(os.environ[settings.GCP_PROJECT])
        self.zone = os.environ[settings.GCP_ZONE]
        self.ground: Ground = gcp.ground(self.gcp, self.zone)
        self.images = GceImages(self.gcp)
        self.machine_type = settings.machine_type(Account.GCP)
        self._ctx, self._run = ctx, run
        self._script = example("google-balancer/balancer.py")
        self._network, self._bucket = Once(self._make_network), Once(self._make_bucket)
        # The first question, which credentials are needed for.
        self.gcp.get(
            ctx, address_of(self.gcp, f"projects/{self.gcp.project}/{area_of(self.zone)}"), f"zone {self.zone}"
        )

    # --------------------------------------------------------------------------------------- what a run makes, once

    @property
    def network(self) -> dict[str, str]:
        """The run's own bucket and balancer, which answers: the variables that the example's script tells."""
        return self._network()

    @property
    def url_map(self) -> str:
        return f"projects/{self.gcp.project}/global/urlMaps/{self.network['URL_MAP']}"

    @property
    def bucket(self) -> str:
        """The run's own bucket, without a balancer: the network's as well."""
        return self._bucket()

    def _make_network(self) -> dict[str, str]:
        made = self._asked(lambda: self._script.create(self._project, self._run.name, PORT, "EU"))
        answers(self._ctx, f"{made['URL']}/", 503)
        return made

    def _make_bucket(self) -> str:
        name = str(self._script.bucket_name(self._project, self._run.name))
        self._asked(lambda: self._script._make_bucket(self._project, name, "EU"))
        return name

    def store(self, label: Label) -> GcsStore:
        """A test's own part of the bucket."""
        return GcsStore(f"gs://{self.bucket}/{label.value}", self.gcp)

    def clear(self, ctx: Context) -> None:
        """Bring the run's URL map back to what it was when it was made: the rules are tests'."""
        if self._network.made:
            found = self.gcp.get(ctx, address_of(self.gcp, self.url_map), "URL map")
            if found.get("hostRules") or found.get("pathMatchers"):
                bare = {key: found[key] for key in ("name", "defaultService", "fingerprint")}
                write(self.gcp, ctx, self.url_map, bare, "URL map", "PUT")

    # ---------------------------------------------------------------------------------------- what runs left behind

    @property
    def kinds(self) -> tuple[Listing, ...]:
        """In the order in which they can be taken away."""
        everywhere, here = "global", area_of(self.zone)
        return (
            self._url_maps,
            self._marked(everywhere, "backendServices"),
            self._marked(everywhere, "healthChecks"),
            self._marked(here, "autoscalers"),  # without which no group goes that they scale
            self._marked(here, "instanceGroupManagers"),
            self._marked(everywhere, "instanceTemplates"),
            self._labelled,
            *(self._named(kind) for kind in self._script.KINDS if kind != "urlMaps"),
            self._buckets,
        )

    def _url_maps(self, ctx: Context) -> Iterator[Left]:
        """Of the run, with the rules that tests made; those before a URL map lead to it, and go first."""
        yield from (
            left for kind in ("forwardingRules", "targetHttpProxies", "urlMaps") for left in self._named(kind)(ctx)
        )

    def _marked(self, area: str, kind: str) -> Listing:
        """What has our label in its description."""

        def listing(ctx: Context) -> Iterator[Left]:
            for found in self._all(ctx, f"{area}/{kind}"):
                if label := marks_of(found).get(TAG):
                    yield self._left(ctx, f"{area}/{kind}", found["name"], label)

        return listing

    def _named(self, kind: str) -> Listing:
        """What the example's script made for a run."""

        def listing(ctx: Context) -> Iterator[Left]:
            for found in self._all(ctx, f"global/{kind}"):
                if (name := found["name"]).startswith(PREFIX):
                    yield self._left(ctx, f"global/{kind}", name, f"{name.removeprefix(PREFIX)}-0")

        return listing

    def _labelled(self, ctx: Context) -> Iterator[Left]:
        for found in self._all(ctx, "global/images"):
            if label := found.get("labels", {}).get(TAG):
                yield self._left(ctx, "global/images", found["name"], label)

    def _buckets(self, ctx: Context) -> Iterator[Left]:
        suffix = self._script.bucket_name(self._project, "|").partition("|")
        url = f"{self.gcp.storage}/storage/v1/b"
        query = {"project": self.gcp.project, "prefix": f"{suffix[0]}{PREFIX}"}
        for page in self.gcp.pages(ctx, url, "buckets", query):
            for found in page.get("items", []):
                name = str(found["name"])
                identity = name.removeprefix(f"{suffix[0]}{PREFIX}").removesuffix(suffix[2])
                yield Left(f"bucket {name}", f"{identity}-0", partial(self._delete_bucket, ctx, name))

    # ------------------------------------------------------------------------------------------------------- details

    @property
    def _project(self) -> object:
        """As the example's script knows it. It has one session for both addresses: without credentials where either of
        them is not Google's."""
        session = self.gcp._http(min(self.gcp.compute, self.gcp.storage, key=_is_google))
        return self._script.Project(self.gcp.project, self.gcp.compute, self.gcp.storage, session)

    def _asked(self, call: Callable[[], dict[str, str] | None]) -> dict[str, str]:
        try:
            return call() or {}
        except SystemExit as error:  # a script's way to say what is wrong
            raise CloudError(str(error)) from None

    def _all(self, ctx: Context, collection: str) -> list[Document]:
        url = f"{self.gcp.project_path}/{collection}"
        return [each for page in self.gcp.pages(ctx, url, collection) for each in page.get("items", [])]

    def _left(self, ctx: Context, collection: str, name: str, label: str) -> Left:
        def remove() -> None:
            url = f"{self.gcp.project_path}/{collection}/{name}"
            try:
                self.gcp.perform(ctx, "DELETE", url, f"{collection}/{name}", request_id=_fresh(), seconds=300)
            except NotFound:
                pass

        return Left(f"{collection}/{name}", label, remove)

    def _delete_bucket(self, ctx: Context, name: str) -> None:
        url = f"{self.gcp.storage}/storage/v1/b/{name}"
        try:
            for page in list(self.gcp.pages(ctx, f"{url}/o", name)):
                for found in page.get("items", []):
                    self.gcp.send(ctx, "DELETE", f"{url}/o/{quote(found['name'], safe='')}", name)
            self.gcp.send(ctx, "DELETE", url, name)
        except NotFound:
            pass


def _fresh() -> str:
    return str(uuid.uuid4())
