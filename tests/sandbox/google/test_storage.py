"""Cloud Storage in the sandbox: what it does and refuses, asked over its JSON API in process."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sizes import KIB
from tests.sandbox.google.place import ACME, BUCKETS, HOST, OBJECTS, UPLOADS, Project, crc32c, md5, refused

UNIT = 256 * KIB


@pytest.fixture
def project() -> Project:
    return Project()


# ----------------------------------------------------------------------------------------------------------- buckets


def test_a_bucket_is_made_shown_listed_and_deleted(project: Project) -> None:
    """In the project that made it, once."""
    made = project.ask("POST", f"{BUCKETS}?project=p", {"name": "b-2", "location": "europe-west1"}).json()
    assert (made["kind"], made["location"], made["locationType"]) == ("storage#bucket", "EUROPE-WEST1", "region")
    assert project.ask("GET", f"{BUCKETS}/b-2").json() == made
    assert [each["name"] for each in project.ask("GET", f"{BUCKETS}?project=p").json()["items"]] == ["acme", "b-2"]
    assert "items" not in project.ask("GET", f"{BUCKETS}?project=another").json()
    refused(project.ask("POST", f"{BUCKETS}?project=q", {"name": "b-2"}), 409, "conflict", "already own it")
    project.made("a")
    refused(project.ask("DELETE", ACME), 409, "conflict", "not empty")
    assert project.ask("DELETE", f"{BUCKETS}/b-2").status_code == 204
    refused(project.ask("GET", f"{BUCKETS}/b-2"), 404, "notFound", "The specified bucket does not exist.")


@pytest.mark.parametrize(
    "name", ["ab", "Acme", "-acme", "acme-", "goog-acme", "my-google-b", "1.2.3.4", "a..b", "a" * 64]
)
def test_other_names_of_buckets_are_refused(project: Project, name: str) -> None:
    """By the rules of Cloud Storage's names."""
    refused(project.ask("POST", f"{BUCKETS}?project=p", {"name": name}), 400, "invalid", "Invalid bucket name")


def test_who_owns_a_bucket_may_do_everything(project: Project) -> None:
    """Permissions are asked for by name; what is no permission of Cloud Storage's is not given."""
    url = f"{ACME}/iam/testPermissions"
    asked = "permissions=storage.objects.get&permissions=storage.objects.create&permissions=compute.images.get"
    assert project.ask("GET", f"{url}?{asked}").json()["permissions"] == [
        "storage.objects.get",
        "storage.objects.create",
    ]
    refused(project.ask("GET", url), 400, "required", "permissions")
    refused(project.ask("GET", f"{BUCKETS}/none/iam/testPermissions?{asked}"), 404, "notFound")


# ------------------------------------------------------------------------------------------------- writing and reading


def test_an_object_reads_back_with_its_sums(project: Project) -> None:
    """Bytes, description, generation, checksums: in the document and in the headers."""
    made = project.made("a/b c", b"content")
    assert (made["size"], made["metageneration"], made["contentType"]) == ("7", "1", "text/plain")
    assert (made["crc32c"], made["md5Hash"]) == (crc32c(b"content"), md5(b"content"))
    assert project.ask("GET", project.url("a/b c")).json() == made
    for url in (
        f"{project.url('a/b c')}?alt=media",
        made["mediaLink"],
        f"{HOST}/download/storage/v1/b/acme/o/a%2Fb%20c?alt=media",
    ):
        read = project.ask("GET", url)
        assert (read.status_code, read.content) == (200, b"content")
        assert read.headers["x-goog-hash"] == f"crc32c={crc32c(b'content')},md5={md5(b'content')}"
        assert read.headers["x-goog-generation"] == made["generation"]
        assert read.headers["etag"] == made["etag"]
        assert read.headers["content-type"] == "text/plain"


def test_bytes_alone_are_an_upload(project: Project) -> None:
    """Named in the query, of the request's own type."""
    answer = project.session.post(f"{UPLOADS}?uploadType=media&name=a", data=b"1", headers={"content-type": "x/y"})
    assert answer.json()["contentType"] == "x/y"
    assert project.read("a").content == b"1"


@pytest.mark.parametrize(
    ("asked", "got"),
    [("0-1", b"01"), ("8-", b"89"), ("-3", b"789"), ("4-99", b"456789"), ("-99", b"0123456789"), ("9-9", b"9")],
)
def test_ranges_are_read(project: Project, asked: str, got: bytes) -> None:
    """From either end, cut at the object's own."""
    project.made("a", b"0123456789")
    answer = project.read("a", range=f"bytes={asked}")
    assert (answer.status_code, answer.content) == (206, got)
    first = b"0123456789".index(got)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(got) - 1}/10"
    # Of the whole object, also for a part of it.
    assert answer.headers["x-goog-hash"].startswith(f"crc32c={crc32c(b'0123456789')}")


def test_a_range_beyond_the_end_is_refused(project: Project) -> None:
    """With how much there is; one that makes no sense asks for all."""
    project.made("a", b"0123456789")
    answer = project.read("a", range="bytes=10-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    for whole in ("bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,3-4"):
        assert project.read("a", range=whole).status_code == 200


def test_what_is_missing_is_told_apart(project: Project) -> None:
    """A bucket or an object; in words alone where bytes were asked for."""
    no_object, no_bucket = "No such object: acme/a", "The specified bucket does not exist."
    there = project.url("a")
    for verb, url in (("GET", there), ("DELETE", there), ("PATCH", there), ("GET", f"{there}?generation=1")):
        refused(project.ask(verb, url, {} if verb == "PATCH" else None), 404, "notFound", no_object)
    for verb, url in (("GET", f"{BUCKETS}/none/o/a"), ("GET", f"{BUCKETS}/none/o"), ("DELETE", f"{BUCKETS}/none")):
        refused(project.ask(verb, url), 404, "notFound", no_bucket)
    upload = f"{HOST}/upload/storage/v1/b/none/o?uploadType=media&name=a"
    refused(project.session.post(upload, data=b""), 404, "notFound", no_bucket)
    for url, text in ((there, no_object), (f"{BUCKETS}/none/o/a", no_bucket)):
        answer = project.ask("GET", f"{url}?alt=media")
        assert (answer.status_code, answer.text) == (404, text)
        assert answer.headers["content-type"].startswith("text/html")
    refused(project.ask("GET", f"{HOST}/storage/v1/nothing"), 404, "notFound")


@pytest.mark.parametrize("name", [".", "..", "a\nb", "a\rb", ".well-known/acme-challenge/x", "é" * 513])
def test_other_names_of_objects_are_refused(project: Project, name: str) -> None:
    """By the rules of Cloud Storage's names; everything else is one."""
    refused(project.put(name), 400, "invalid", "Invalid object name")


@pytest.mark.parametrize("name", ["a/../b", "/", "a//b", "é" * 512, "a?b#c", "%2F", " ", "a+b"])
def test_any_other_name_is_one(project: Project, name: str) -> None:
    """And is found by it, in an address or a list."""
    assert project.made(name, b"1")["name"] == name
    assert project.ask("GET", project.url(name)).json()["name"] == name
    assert [each["name"] for each in project.ask("GET", OBJECTS).json()["items"]] == [name]
    assert project.ask("DELETE", project.url(name)).status_code == 204


@pytest.mark.parametrize("told", [{"crc32c": crc32c(b"other")}, {"md5Hash": md5(b"other")}])
def test_other_sums_than_the_bytes_have_are_refused(project: Project, told: dict[str, str]) -> None:
    """Nothing is kept then, however they were told."""
    refused(project.put("a", b"content", told), 400, "invalid", "doesn't match calculated")
    [(name, value)] = told.items()
    header = f"{'crc32c' if name == 'crc32c' else 'md5'}={value}"
    answer = project.session.post(
        f"{UPLOADS}?uploadType=media&name=a", data=b"content", headers={"x-goog-hash": header}
    )
    refused(answer, 400, "invalid", "doesn't match calculated")
    refused(project.send(project.begin("a", body=told), b"content"), 400, "invalid", "doesn't match calculated")
    refused(project.send(project.begin("a"), b"content", x_goog_hash=header), 400, "invalid", "doesn't match")
    refused(project.ask("GET", project.url("a")), 404, "notFound")
    assert project.put("a", b"content", {"crc32c": crc32c(b"content"), "md5Hash": md5(b"content")}).ok


# ----------------------------------------------------------------------------------------------------- preconditions


def test_generations_rise_and_metagenerations_count(project: Project) -> None:
    """Each write is a generation of its own, also after a deletion; each change of the description counts."""
    first, second = project.made("a")["generation"], project.made("a")["generation"]
    project.ask("DELETE", project.url("a"))
    third = project.made("a")["generation"]
    assert int(first) < int(second) < int(third)
    changed = project.ask("PATCH", project.url("a"), {"metadata": {"k": "v"}}).json()
    assert (changed["generation"], changed["metageneration"]) == (third, "2")
    assert project.made("a")["metageneration"] == "1"


VERBS = ("get", "media", "put", "resumable", "compose", "patch", "delete")


@pytest.mark.parametrize("condition", ["generation", "metageneration"])
@pytest.mark.parametrize(
    ("verb", "same"), [(verb, same) for verb in VERBS for same in (True, False) if same or verb != "compose"]
)
def test_conditions_hold_for_every_verb(project: Project, verb: str, condition: str, same: bool) -> None:
    """Match and NotMatch, met and not met: what is not met changes nothing."""
    made = project.made("a", b"1")
    name = f"if{condition.capitalize()}" + ("Match" if same else "NotMatch")

    def ask(value: int) -> int:
        query = f"?{name}={value}"
        match verb:
            case "get":
                answer = project.ask("GET", project.url("a") + query)
            case "media":
                answer = project.ask("GET", f"{project.url('a')}{query}&alt=media")
            case "put":
                answer = project.put("a", b"2", None, **{name: value})
            case "resumable":
                answer = project.send(project.begin("a", f"&{name}={value}"), b"2")
            case "compose":
                answer = project.compose("a", [{"name": "a"}], query)
            case "patch":
                answer = project.ask("PATCH", project.url("a") + query, {"contentType": "x/y"})
            case _:
                answer = project.ask("DELETE", project.url("a") + query)
        if answer.status_code == 412 and verb != "media":
            refused(answer, 412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        return answer.status_code

    there, other = int(made[condition]), int(made[condition]) + 7
    not_met = 304 if verb in ("get", "media") and not same else 412
    assert ask(other if same else there) == not_met
    assert project.ask("GET", project.url("a")).json() == made
    assert ask(there if same else other) in (200, 204)


def test_an_object_that_is_not_there_has_generation_0(project: Project) -> None:
    """To be put only then; no other condition holds for it."""
    for query in ({"ifGenerationMatch": 1}, {"ifGenerationNotMatch": 0}, {"ifMetagenerationMatch": 1}):
        refused(project.put("a", b"", None, **query), 412, "conditionNotMet")
    project.made("a", b"1", ifGenerationMatch=0)
    refused(project.put("a", b"2", None, ifGenerationMatch=0), 412, "conditionNotMet")
    project.made("a", b"3", ifGenerationNotMatch=0)
    assert project.read("a").content == b"3"


def test_of_forty_writers_one_wins(project: Project) -> None:
    """Conditions and writes are one step."""
    barrier, codes = threading.Barrier(40), list[int]()

    def write(number: int) -> None:
        barrier.wait()
        codes.append(project.put("race", f"{number}".encode(), None, ifGenerationMatch=0).status_code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] + [412] * 39


def test_entity_tags_are_conditions_of_reading(project: Project) -> None:
    """Of both the document and the bytes."""
    tag = project.made("a", b"1")["etag"]
    for url in (project.url("a"), f"{project.url('a')}?alt=media"):
        assert project.ask("GET", url, if_match=f'"{tag}"').status_code == 200
        assert project.ask("GET", url, if_match='"other"').status_code == 412
        assert project.ask("GET", url, if_none_match=tag).status_code == 304
        assert project.ask("GET", url, if_none_match="*").status_code == 304
        assert project.ask("GET", url, if_none_match='"other"').status_code == 200


# ------------------------------------------------------------------------------------------------- resumable uploads


def test_a_resumable_upload_in_chunks(project: Project) -> None:
    """What is kept is told after each; at the end there is an object, and until then none."""
    content = bytes(range(256)) * 2048 + b"end"
    address = project.begin("a", body={"metadata": {"k": "v"}}, x_upload_content_type="x/y")
    answer = project.send(address, content[:UNIT], f"bytes 0-{UNIT - 1}/*")
    assert (answer.status_code, answer.headers["range"]) == (308, f"bytes=0-{UNIT - 1}")
    answer = project.send(address, b"", "bytes */*")
    assert (answer.status_code, answer.headers["range"]) == (308, f"bytes=0-{UNIT - 1}")
    refused(project.ask("GET", project.url("a")), 404, "notFound")
    made = project.send(address, content[UNIT:], f"bytes {UNIT}-{len(content) - 1}/{len(content)}").json()
    assert (made["contentType"], made["metadata"], made["md5Hash"]) == ("x/y", {"k": "v"}, md5(content))
    assert project.read("a").content == content
    # Whoever missed the answer asks, and is told of the very same object.
    assert project.send(address, b"", f"bytes */{len(content)}").json() == made


def test_an_upload_goes_on_where_it_stands(project: Project) -> None:
    """Bytes that are there already are passed over; of a chunk that is no last one, whole units are kept."""
    content = bytes(3 * UNIT + 5)
    address = project.begin("a")
    assert "range" not in project.send(address, b"", "bytes */*").headers
    answer = project.send(address, content[: UNIT + 9], f"bytes 0-{UNIT + 8}/*")
    assert answer.headers["range"] == f"bytes=0-{UNIT - 1}"
    refused(
        project.send(address, content[:5], f"bytes {2 * UNIT}-{2 * UNIT + 4}/*"), 400, "badRequest", "upload offset is"
    )
    answer = project.send(address, content[: 2 * UNIT], f"bytes 0-{2 * UNIT - 1}/{len(content)}")
    assert answer.headers["range"] == f"bytes=0-{2 * UNIT - 1}"
    assert project.send(address, content[2 * UNIT :], f"bytes {2 * UNIT}-{len(content) - 1}/{len(content)}").ok
    assert project.read("a").content == content


def test_an_upload_may_be_one_request_or_empty(project: Project) -> None:
    """Without a word about where its bytes belong; nothing at all is an object, too."""
    assert project.send(project.begin("a"), b"whole").json()["size"] == "5"
    assert project.send(project.begin("b"), b"", "bytes */0").json()["size"] == "0"
    address = project.begin("c")
    assert project.send(address, bytes(UNIT), f"bytes 0-{UNIT - 1}/*").status_code == 308
    # Only now it is known that this was all.
    assert project.send(address, b"", f"bytes */{UNIT}").json()["size"] == f"{UNIT}"


@pytest.mark.parametrize("said", ["bytes 0-3/5", "bytes 0-4/3", "bytes 4-0/5", "0-4/5", "bytes -4/5", "bytes */5"])
def test_chunks_that_say_what_is_not_so_are_refused(project: Project, said: str) -> None:
    """And the upload stays as it was."""
    address = project.begin("a")
    refused(project.send(address, b"12345", said), 400, "badRequest")
    assert project.send(address, b"12345", "bytes 0-4/5").ok


def test_a_length_that_was_announced_is_kept_to(project: Project) -> None:
    """By the last chunk."""
    address = project.begin("a", x_upload_content_length="6")
    refused(project.send(address, b"12345", "bytes 0-4/5"), 400, "badRequest", "6 bytes")
    refused(project.ask("POST", f"{UPLOADS}?uploadType=resumable&name=a", x_upload_content_length="x"), 400, "invalid")


def test_an_upload_ends_by_request_or_after_a_week(project: Project) -> None:
    """Then its address means nothing."""
    cancelled, forgotten = project.begin("a"), project.begin("b")
    assert project.session.delete(cancelled).status_code == 499
    refused(project.send(cancelled, b"1"), 404, "notFound")
    project.clock.advance(8 * 86400)
    refused(project.send(forgotten, b"1"), 404, "notFound")
    assert "items" not in project.ask("GET", OBJECTS).json()


# ------------------------------------------------------------------------------------------------------- composition


def test_objects_are_composed(project: Project) -> None:
    """In the order given, as often as given; Google knows a CRC-32C of it and no MD5."""
    one = project.made("1", b"one")
    project.made("2", b"two")
    source = {
        "name": "1",
        "generation": one["generation"],
        "objectPreconditions": {"ifGenerationMatch": one["generation"]},
    }
    made = project.compose("a", [source, {"name": "2"}, {"name": "1"}], contentType="x/y", metadata={"k": "v"}).json()
    assert (made["size"], made["componentCount"], made["contentType"]) == ("9", 3, "x/y")
    assert (made["crc32c"], made["metadata"]) == (crc32c(b"onetwoone"), {"k": "v"})
    assert "md5Hash" not in made
    assert project.read("a").content == b"onetwoone"
    assert project.read("a", range="bytes=2-4").content == b"etw"
    # Its parts may go, and it may be its own source.
    for name in ("1", "2"):
        project.ask("DELETE", project.url(name))
    assert project.compose("a", [{"name": "a"}, {"name": "a"}], f"?ifGenerationMatch={made['generation']}").ok
    assert project.read("a").content == b"onetwoone" * 2
    assert project.ask("GET", project.url("a")).json()["componentCount"] == 6


def test_what_an_object_is_composed_of_may_go_with_that(project: Project) -> None:
    """Where the composition says so, and where it was made."""
    for name in ("1", "2"):
        project.made(name, name.encode())
    both = {"sourceObjects": [{"name": "1"}, {"name": "2"}], "deleteSourceObjects": True}
    project.made("there", b"")
    url = f"{project.url('there')}/compose?ifGenerationMatch=0"
    refused(project.ask("POST", url, both), 412, "conditionNotMet")
    assert project.read("1").content == b"1"
    assert project.ask("POST", f"{project.url('a')}/compose", both).ok
    assert [each["name"] for each in project.ask("GET", OBJECTS).json()["items"]] == ["a", "there"]
    assert project.read("a").content == b"12"


def test_a_composition_is_refused_for_what_it_is_of(project: Project) -> None:
    """Nothing, too much, what is not there, what is another by now."""
    made = project.made("1", b"one")
    refused(project.compose("a", []), 400, "required", "at least one source")
    refused(project.compose("a", [{"name": "1"}] * 33), 400, "invalid", "exceeds the maximum (32)")
    assert project.compose("many", [{"name": "1"}] * 32).json()["size"] == "96"
    refused(project.compose("a", [{"name": "none"}]), 404, "notFound", "Object none")
    refused(project.compose("a", [{"name": "1", "generation": "5"}]), 404, "notFound", "generation: 5")
    old = {"name": "1", "objectPreconditions": {"ifGenerationMatch": str(int(made["generation"]) - 1)}}
    refused(project.compose("a", [old]), 412, "conditionNotMet")
    refused(project.compose("1", [{"name": "1"}], "?ifGenerationMatch=0"), 412, "conditionNotMet")
    refused(project.compose("a", [{"name": "1"}], crc32c=crc32c(b"other")), 400, "invalid", "doesn't match")
    refused(project.ask("GET", project.url("a")), 404, "notFound")


# ------------------------------------------------------------------------------------------------------------ listing


NAMES = ["a", "a/1", "a/2/3", "a/2/4", "b", "é", "A"]


def listed(project: Project, query: str = "") -> tuple[list[str], list[str]]:
    """Names and prefixes, of all pages."""
    names, prefixes, token = list[str](), list[str](), ""
    while True:
        page = project.ask("GET", f"{OBJECTS}?{query}{token}").json()
        names += [each["name"] for each in page.get("items", [])]
        prefixes += page.get("prefixes", [])
        if "nextPageToken" not in page:
            return names, prefixes
        token = f"&pageToken={page['nextPageToken']}"


@pytest.mark.parametrize("size", ["", "&maxResults=1", "&maxResults=2"])
def test_objects_are_listed(project: Project, size: str) -> None:
    """In the order of their names' bytes, by prefix, by folder, in a range of names, in pages of any size."""
    for name in NAMES:
        project.made(name)
    assert listed(project, size) == (["A", "a", "a/1", "a/2/3", "a/2/4", "b", "é"], [])
    assert listed(project, f"prefix=a{size}") == (["a", "a/1", "a/2/3", "a/2/4"], [])
    assert listed(project, f"delimiter=/{size}") == (["A", "a", "b", "é"], ["a/"])
    assert listed(project, f"delimiter=/&prefix=a/{size}") == (["a/1"], ["a/2/"])
    assert listed(project, f"startOffset=a/2&endOffset=b{size}") == (["a/2/3", "a/2/4"], [])
    assert listed(project, f"prefix=none{size}") == ([], [])


NAME = st.text("ab/é", min_size=1, max_size=4)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(NAME, max_size=8), prefix=st.text("ab/", max_size=2), size=st.integers(1, 4))
def test_a_list_is_all_names_sorted_and_grouped(names: set[str], prefix: str, size: int) -> None:
    """Whatever they are, each once, however the pages fall."""
    project = Project()
    for name in names:
        project.made(name)
    inside = sorted((name for name in names if name.startswith(prefix)), key=str.encode)
    cut = [name.find("/", len(prefix)) for name in inside]
    found = listed(project, f"delimiter=/&prefix={prefix}&maxResults={size}")
    assert found[0] == [name for name, at in zip(inside, cut, strict=True) if at < 0]
    common = {name[: at + 1] for name, at in zip(inside, cut, strict=True) if at >= 0}
    assert found[1] == sorted(common, key=str.encode)


def test_a_token_that_is_none_is_refused(project: Project) -> None:
    """By name."""
    refused(project.ask("GET", f"{OBJECTS}?pageToken=$$"), 400, "invalid", "pageToken")


# ---------------------------------------------------------------------------------------------------------- changing


def test_a_description_is_changed_in_parts(project: Project) -> None:
    """Metadata by key, null takes away, the rest stays; bytes and generation stay."""
    project.put("a", b"1", {"metadata": {"k": "v", "l": "w"}, "cacheControl": "no-store"})
    changed = project.ask("PATCH", project.url("a"), {"metadata": {"k": None, "m": "x"}, "cacheControl": None}).json()
    assert changed["metadata"] == {"l": "w", "m": "x"}
    assert "cacheControl" not in changed
    assert changed["contentType"] == "text/plain"
    assert "metadata" not in project.ask("PATCH", project.url("a"), {"metadata": None}).json()
    refused(project.ask("PATCH", project.url("a"), {"md5Hash": md5(b"2")}), 400, "invalid", "md5Hash")
    assert project.read("a").content == b"1"


# ---------------------------------------------------------------------------------------------------- and what it is


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """Objects, and uploads that were under way."""
    project = Project(tmp_path)
    project.made("a", b"content")
    address = project.begin("b")
    project.send(address, bytes(UNIT), f"bytes 0-{UNIT - 1}/*")
    project.sandbox.close()
    again = Project(tmp_path, empty=False)
    assert again.read("a").content == b"content"
    assert again.send(address, b"end", f"bytes {UNIT}-{UNIT + 2}/{UNIT + 3}").ok
    assert again.read("b").content == bytes(UNIT) + b"end"
    again.sandbox.close()


def test_the_inventory_names_buckets_and_objects(project: Project) -> None:
    """And nothing that only serves them."""
    project.made("a")
    project.begin("b")
    assert project.sandbox.inventory() == {"storage.bucket": ["acme"], "storage.object/acme": ["a"]}


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        (FaultKind.THROTTLED, 429, "rateLimitExceeded"),
        (FaultKind.DENIED, 403, "forbidden"),
        (FaultKind.BROKEN, 503, "backendError"),
    ],
)
def test_faults_speak_google_s_words(project: Project, kind: FaultKind, status: int, reason: str) -> None:
    """And strike by the API's own names of methods."""
    project.sandbox.faults.add(Fault("storage:objects.insert", kind))
    refused(project.put("a"), status, reason)
    assert project.put("a").ok
    log = [(call.service, call.operation, call.mutating, call.error) for call in project.sandbox.calls()[1:]]
    assert log == [("storage", "objects.insert", True, reason), ("storage", "objects.insert", True, "")]


def test_what_reads_is_told_apart_from_what_changes(project: Project) -> None:
    """In the log of calls."""
    made = project.made("a")
    project.read("a")
    project.ask("GET", OBJECTS)
    project.ask("GET", f"{ACME}/iam/testPermissions?permissions=storage.objects.get")
    project.compose("b", [{"name": "a"}])
    project.ask("DELETE", f"{project.url('a')}?generation={made['generation']}")
    assert [(call.operation, call.mutating) for call in project.sandbox.calls()[2:]] == [
        ("objects.get", False),
        ("objects.list", False),
        ("buckets.testIamPermissions", False),
        ("objects.compose", True),
        ("objects.delete", True),
    ]
