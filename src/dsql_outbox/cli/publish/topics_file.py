"""The file of ``publish --topics``: settings per topic, in TOML."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final, cast

import msgspec

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher import PublisherSettings, TopicSettings

_KEYS: Final = tuple(field.name for field in fields(TopicSettings))


def read_topics(file: Path) -> Mapping[str, TopicSettings]:
    """The settings of the topics, by pattern, in the order of the file.

    Raises `SettingsError`, which names the file and the key, for a file that cannot be read
    or is not TOML, for an unknown key, and for an invalid value.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from error
    topics = {pattern: _parse(file, pattern, table) for pattern, table in tables.items()}
    try:
        PublisherSettings(topics=topics)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error
    return topics


def _parse(file: Path, pattern: str, table: object) -> TopicSettings:
    if not isinstance(table, dict):
        raise SettingsError(
            f"{file}: {pattern} is no table: write a pattern of topics as a table, "
            f'["events.*"], and the keys {", ".join(_KEYS)} in it'
        )
    for key, value in cast("dict[str, object]", table).items():
        if isinstance(value, dict):
            raise SettingsError(
                f"{file}: table [{pattern}.{key}] needs quotes, because of the dot: "
                f'["{pattern}.{key}"]'
            )
        if key not in _KEYS:
            raise SettingsError(
                f'{file}: unknown key {key} in ["{pattern}"], there are {", ".join(_KEYS)}'
            )
    try:
        return msgspec.convert(table, TopicSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f'{file}: ["{pattern}"]: {error}') from error
