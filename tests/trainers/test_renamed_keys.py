"""Keys of earlier versions are refused with their new names, which exist."""

import pytest
import yaml

from trainers.cli.parser import RENAMED_KEYS, config_from_file, parse


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_an_old_key_is_refused_with_its_new_name(old, new, tmp_path):
    for words in ([f"--{old}", "1"], [f"--{old}=1"]):
        with pytest.raises(ValueError, match=rf"^{old}: is now called {new}$"):
            parse(words)
    section, _, key = old.rpartition(".")
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({section: {key: 1}} if section else {key: 1}))
    with pytest.raises(ValueError, match=rf"{old}: is now called {new}$"):
        config_from_file(file)


@pytest.mark.parametrize("new", RENAMED_KEYS.values())
def test_the_new_name_is_a_key(new):
    value = parse([])[0]
    for part in new.split("."):
        assert hasattr(value, part)
        value = getattr(value, part)
    assert new not in RENAMED_KEYS
