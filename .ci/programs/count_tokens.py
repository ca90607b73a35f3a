"""Count the input tokens of a few prompts and estimate their price."""

from __future__ import annotations

from typing import Any

from claude_batches import Anthropic, MessageTokensCount

PRICE_PER_MILLION = 2.5

client = Anthropic()
prompts: list[str] = ["Describe Oslo.", "Describe Lima."]
total = 0
for prompt in prompts:
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    count: MessageTokensCount = client.messages.count_tokens(
        model="claude-opus-4-6",
        system="You are a geographer.",
        messages=messages,
    )
    total += count.input_tokens
print(f"{total} tokens, ${total * PRICE_PER_MILLION / 1_000_000:.4f}")
print(
    client.messages.count_tokens(
        model="claude-opus-4-6", messages=[{"role": "user", "content": "Hello"}]
    ).input_tokens
)
