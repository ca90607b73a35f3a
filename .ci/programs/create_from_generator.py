"""Create a batch from a CSV file with a generator of typed requests."""

import csv
import sys
from typing import Iterator

from claude_batches import Anthropic, MessageCreateParamsNonStreaming, Request

MODEL = "claude-opus-4-6"


def requests(path: str) -> Iterator[Request]:
    with open(path, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            yield Request(
                custom_id=f"review-{number}",
                params=MessageCreateParamsNonStreaming(
                    model=MODEL,
                    max_tokens=1024,
                    system="Answer with one word: positive, negative or neutral.",
                    messages=[{"role": "user", "content": row["review"]}],
                ),
            )


def main() -> None:
    client = Anthropic()
    batch = client.messages.batches.create(requests=requests(sys.argv[1]))
    print(f"Batch {batch.id} is {batch.processing_status}.")


if __name__ == "__main__":
    main()
