"""What `bench_data.py` runs.

images   synthetic photographs and pairs
measure  wall time and processor time of ways in turn; ratios
loading  ways to get batches of pairs: ours and what bounds it
others   the same with other loaders
packing  `pack`, and its pixel work alone
report   table, CSV and plot
"""
