"""Scores of the papers, in percent, as they were published: rows to hold one's own beside."""

# score in a report, in the order of the rows: ACC, BLEU-1 .. 4, METEOR, ROUGE-L
PUBLISHED_SCORES = ("sub_acc", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L")

# test set -> row -> scores. The papers' v2.0 is test_all.
PUBLISHED = {
    "v1.0": {
        "NLX-GPT (published)": (63.6, 53.8, 29.9, 16.3, 9.3, 13.8, 30.3),
        "SEVLM (published)": (65.6, 54.2, 30.3, 16.4, 9.2, 13.9, 30.4),
        "LLaVA-OV (published)": (69.8, 49.9, 27.2, 15.0, 8.4, 14.3, 28.8),
        "SAEA, 2026 (published)": (70.5, 56.3, 32.2, 17.8, 10.3, 14.8, 31.2),
    },
    "test_all": {
        "SEVLM (published)": (44.2, 51.8, 30.4, 17.2, 10.1, 13.9, 30.4),
        "LLaVA-OV (published)": (53.7, 50.7, 29.8, 17.6, 10.7, 14.9, 29.9),
        "SAEA, 2026 (published)": (56.2, 54.7, 33.4, 19.9, 12.2, 15.2, 32.0),
    },
    "affection": {
        "SEVLM (published)": (69.4, 62.0, 36.3, 21.0, 12.3, 15.5, 30.9),
        "LLaVA-OV (published)": (76.6, 61.2, 36.0, 21.4, 12.9, 16.5, 30.8),
        "SAEA, 2026 (published)": (78.2, 64.5, 38.9, 23.1, 13.7, 16.6, 32.3),
    },
}
FOOTNOTE = (
    "SAEA's accuracy is that of an image head, not of the generated text, and its published script chooses the epoch on "
    "the test file."
)
