"""What a run tells while it trains: TensorBoard, metrics.jsonl and the terminal, from rank 0."""

from distill.monitor.monitor import Monitor

__all__ = ["Monitor"]
