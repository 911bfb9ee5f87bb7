"""Made-up inputs and helpers that several tests share."""
