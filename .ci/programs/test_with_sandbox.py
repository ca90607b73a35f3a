"""Test a function of your own against the sandbox, without a key."""

from __future__ import annotations

import unittest
from typing import Iterable

from claude_batches import Anthropic, Sandbox


def summarize(client: Anthropic, texts: Iterable[str]) -> dict[str, str]:
    batch = client.messages.batches.create(
        requests=[
            {
                "custom_id": f"text-{number}",
                "params": {
                    "model": "claude-opus-4-6",
                    "max_tokens": 300,
                    "messages": [{"role": "user", "content": f"Summarize: {text}"}],
                },
            }
            for number, text in enumerate(texts)
        ]
    )
    client.messages.batches.wait(batch.id, poll_interval=0.05)
    summaries = {}
    for row in client.messages.batches.results(batch.id):
        if row.result.type == "succeeded":
            block = row.result.message.content[0]
            if block.type == "text":
                summaries[row.custom_id] = block.text
    return summaries


class SummarizeTest(unittest.TestCase):
    def test_each_text_has_a_summary(self) -> None:
        with Sandbox(seconds=0.1) as sandbox:
            client = Anthropic(base_url=sandbox.url, api_key="sandbox")
            summaries = summarize(client, ["one", "two"])
        self.assertEqual(sorted(summaries), ["text-0", "text-1"])


if __name__ == "__main__":
    unittest.main()
