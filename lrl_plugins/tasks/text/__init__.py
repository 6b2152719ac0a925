"""Text in, text out: summarisation, paraphrase, data-to-text, language modelling and arithmetic."""
