"""What a prompt is about, by the nearest of a few centroids of hashed wording; "unknown" when none is clearly nearest.

The centroids come from the example prompts below, written for this. They are a weak signal and are used as one: they
pick weights by domain and break ties, they never exclude an expert.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from axion_llm.consensus.embed import Vectors, hashed, normalised

LEAST_LIKENESS = 0.16
LEAST_LEAD = 0.03

EXAMPLES: dict[str, tuple[str, ...]] = {
    "math": (
        "What is 23 times 19?",
        "Solve the equation 3x + 5 = 20.",
        "A shop sells pens at 2 dollars each. How much do 14 pens cost?",
        "Calculate the area of a circle with a radius of 3.",
        "If a car drives 60 miles per hour for 3 hours, how many miles does it drive?",
        "How many apples are left if Tom has 12 and eats 5?",
        "Find the derivative of x squared.",
        "What is 20 percent of 350?",
    ),
    "facts": (
        "What is the capital of Canada?",
        "Who wrote War and Peace?",
        "When did the French Revolution begin?",
        "Which planet is the largest in the solar system?",
        "What is the boiling point of water?",
        "Who was the first president of the United States?",
        "In which year was the telephone invented?",
        "What language is spoken in Brazil?",
    ),
    "writing": (
        "Write a short story about a dragon.",
        "Write a poem about the sea.",
        "Draft an email to a customer who complains.",
        "Rewrite this paragraph in a more formal tone.",
        "Write a product description for a lamp.",
        "Compose a letter to my landlord.",
        "Write a blog post about gardening.",
        "Give me a slogan for a bakery.",
    ),
    "extraction": (
        "Extract the names and dates from the following text.",
        "Summarise the following article in three sentences.",
        "Classify the sentiment of this review as positive or negative.",
        "Which of the following labels fits the text?",
        "List all email addresses in the text below.",
        "What is the total amount on this invoice?",
        "Translate the following sentence into German.",
        "Return the fields as JSON.",
    ),
}


@lru_cache(maxsize=1)
def _centroids() -> tuple[list[str], Vectors]:
    means = np.stack([hashed(prompts).mean(axis=0) for prompts in EXAMPLES.values()])
    return list(EXAMPLES), normalised(means)


def domain_of(text: str) -> str:
    names, centroids = _centroids()
    likeness: list[float] = (centroids @ hashed([text[:2000]])[0]).tolist()
    first, second = sorted(likeness, reverse=True)[:2]
    if first < LEAST_LIKENESS or first - second < LEAST_LEAD:
        return "unknown"
    return names[likeness.index(first)]
