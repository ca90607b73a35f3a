"""Tell the kinds of results apart by their classes, in the way of the official SDK."""

from claude_batches import (
    Anthropic,
    MessageBatchErroredResult,
    MessageBatchResult,
    MessageBatchSucceededResult,
    TextBlock,
)


def describe(result: MessageBatchResult) -> str:
    if isinstance(result, MessageBatchSucceededResult):
        first = result.message.content[0]
        return first.text if isinstance(first, TextBlock) else first.type
    if isinstance(result, MessageBatchErroredResult):
        return result.error.error.message
    return result.type


with Anthropic() as client:
    for entry in client.messages.batches.results("msgbatch_123"):
        print(entry.custom_id, describe(entry.result))
