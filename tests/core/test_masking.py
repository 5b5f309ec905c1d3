"""No value of an environment variable survives the masking of an inspected container."""

import json
import time
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.clients import jsonform, xmlform
from xscontainer.core.masking import MASK, MOST_CHARACTERS, looks_secret, mask

CANARY = "cAnArY31415"

text = st.text(max_size=12)
value = st.builds(lambda before, after: before + CANARY + after, text, text)
# The text before the first "=" of an entry is the name of the variable.
entry = st.one_of(st.builds(lambda name, found: name + "=" + found, text, value),
                  value.map(lambda found: found.replace("=", "")))
environment = st.recursive(
    st.one_of(st.lists(entry, max_size=4), st.dictionaries(text, value, max_size=3), value),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(text, inner, max_size=2)), max_leaves=4)
other = st.one_of(st.none(), st.booleans(), st.integers(), text, st.lists(text, max_size=2))


@given(found=environment, key=st.sampled_from(["Env", "env", "ENV", "Environment"]),
       beside=st.dictionaries(text, other, max_size=3), as_list=st.booleans())
def test_no_value_of_an_environment_survives(found: Any, key: str, beside: Dict[str, Any], as_list: bool) -> None:
    config: Any = {**beside, key: found, "Labels": beside}
    document = {"Id": "f" * 64, "Config": [config] if as_list else config, **beside}
    masked = mask(document)
    assert CANARY not in xmlform.inspect_result(masked)
    assert CANARY not in jsonform.inspect_result(masked)


@given(names=st.lists(st.text(alphabet=st.characters(blacklist_characters="="), max_size=20), max_size=5))
def test_the_names_of_an_environment_stay_in_their_order(names: Any) -> None:
    found = mask({"Config": {"Env": [f"{name}=x={CANARY}" for name in names]}})
    assert found["Config"]["Env"] == [f"{name}={MASK}" for name in names]


@given(secret=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30).map(
    lambda found: found + CANARY), before=text)
def test_a_secret_variable_is_found_in_commands_labels_and_outputs(secret: str, before: str) -> None:
    found = mask({"Args": ["-a", before + secret, secret], "Config": {
        "Env": [f"REDIS_PASSWORD={secret}"], "Cmd": ["sh", "-c", f"redis-cli -a {secret} ping"],
        "Labels": {"note": before + secret}}, "State": {"Health": {"Log": [{"Output": f"bad {secret}!"}]}}})
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize("given_, shown", [
    ({"Labels": {"db.password": "x", "org.opencontainers.image.authors": "me", "a.pass": "x", "bypass": "yes"}},
     {"Labels": {"db.password": MASK, "org.opencontainers.image.authors": "me", "a.pass": MASK, "bypass": "yes"}}),
    ({"LogConfig": {"Config": {"splunk-token": "x", "tag": "t"}}},
     {"LogConfig": {"Config": {"splunk-token": MASK, "tag": "t"}}}),
    ({"Cmd": ["mysqld", "--password", "x", "--verbose"]}, {"Cmd": ["mysqld", "--password", MASK, "--verbose"]}),
    ({"Cmd": ["--root-password=x", "API_KEY=y", "--no-auth", "--port", "1"]},
     {"Cmd": [f"--root-password={MASK}", f"API_KEY={MASK}", "--no-auth", "--port", "1"]}),
    ({"Cmd": ["sh", "-c", "run --token 'a b' --db-password x; say the password expired"]},
     {"Cmd": ["sh", "-c", f"run --token {MASK} --db-password {MASK} say the password expired"]}),
    ({"Test": ["CMD", "curl", "-H", "Authorization: Bearer x", "https://me:x@here/p", "http://here:80/a"]},
     {"Test": ["CMD", "curl", "-H", f"Authorization: {MASK}", f"https://me:{MASK}@here/p", "http://here:80/a"]}),
    ({"Env": ["A=1", "alone"], "Pid": 7, "Running": True, "Error": None},
     {"Env": [f"A={MASK}", MASK], "Pid": 7, "Running": True, "Error": None}),
])
def test_secrets_are_masked_where_a_name_announces_them(given_: Dict[str, Any], shown: Dict[str, Any]) -> None:
    assert mask(given_) == shown


def test_short_and_plain_variables_leave_the_rest_readable() -> None:
    found = {"Image": "postgres:16", "Cmd": ["postgres", "a"], "Env": ["POSTGRES_USER=postgres", "PASSWORD=a"]}
    assert mask(found)["Cmd"] == ["postgres", "a"] and found["Image"] == "postgres:16"


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "aws.secret", "X-Api-Key", "PGPASSWD", "oauth2", "DB_PASS"])
def test_names_of_secrets_are_recognized(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["PATH", "authors", "SandboxKey", "compass", "com.docker.compose.project"])
def test_other_names_are_not(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize("piece", ["password", "password ", 'password="', "--password ", "://a:", "token=bearer "])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        document = {"Labels": {str(number): (piece * size)[:60000] for number in range(size // 4000)}}
        begun = time.process_time()
        mask(document)
        return time.process_time() - begun

    seconds(40000)
    assert seconds(80000) < 8 * seconds(40000) + 0.5


def test_text_beyond_the_bound_is_masked_as_a_whole() -> None:
    found = mask({"Labels": {str(number): "a" * 65536 for number in range(40)}})
    shown = [label for label in found["Labels"].values() if label != MASK]
    assert sum(map(len, shown)) <= MOST_CHARACTERS and len(shown) == 32
