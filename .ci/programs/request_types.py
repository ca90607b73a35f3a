"""Use the request types in signatures, as constructors and for plain dicts."""

from __future__ import annotations

from typing import Any

from claude_batches import (
    Anthropic,
    MessageBatch,
    MessageCreateParamsNonStreaming,
    Request,
)


def params_for(question: str) -> MessageCreateParamsNonStreaming:
    return {
        "model": "claude-opus-4-6",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": question}],
    }


def show(request: Request) -> None:
    print(request["custom_id"], request["params"]["max_tokens"])


def send(client: Anthropic, questions: dict[str, str]) -> MessageBatch:
    requests: list[Request] = []
    for name, question in questions.items():
        request = Request(custom_id=name, params=params_for(question))
        show(request)
        requests.append(request)
    return client.messages.batches.create(requests=requests)


def send_plain_dicts(client: Anthropic, rows: list[dict[str, Any]]) -> MessageBatch:
    return client.messages.batches.create(requests=rows)
