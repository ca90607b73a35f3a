"""Print the text of every result, and tell why the other requests failed."""

from __future__ import annotations

from claude_batches import Anthropic, Message


def text_of(message: Message) -> str:
    texts = []
    for block in message.content:
        if block.type == "text":
            texts.append(block.text)
    return "".join(texts)


client = Anthropic()
answers: dict[str, str] = {}
output_tokens = 0
for row in client.messages.batches.results("msgbatch_123"):
    if row.result.type == "succeeded":
        for block in row.result.message.content:
            if block.type == "text":
                print(block.text)
            elif block.type == "tool_use":
                print(block.name, block.input)
        answers[row.custom_id] = text_of(row.result.message)
        output_tokens += row.result.message.usage.output_tokens
    elif row.result.type == "errored":
        error = row.result.error.error
        print(f"{row.custom_id}: {error.type}: {error.message}")
    else:
        print(f"{row.custom_id} is {row.result.type}.")
print(len(answers), output_tokens)
