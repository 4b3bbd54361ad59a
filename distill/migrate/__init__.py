"""Settings of other trainers as ours: InsightFace's arcface_torch."""
