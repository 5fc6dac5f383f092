"""The events of `dev --sample`, and the page that pauses their topic."""

import json

from tests.support.checkout import ROOT

from dsql_outbox.cli.dev.command import sample_events


def test_the_page_pauses_the_topic_of_the_sample() -> None:
    page = (ROOT / "docs" / "start.md").read_text()
    (event,) = map(json.loads, sample_events(1))
    topic = f"events.{event['eventHeader']['eventType']}"
    for command in ("pause", "resume"):
        assert f"dsql-outbox topics {command} {topic}" in page
