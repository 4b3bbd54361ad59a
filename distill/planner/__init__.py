"""What a run will need before it is started: memory a rank, bytes over the network, and time.

facts.py     what is asked and what is known: the job, a choice, the costs of network and head
trace.py     costs by running network, head and loss on tensors without memory (needs torch)
engine.py    weights inside of DeepSpeed, and how ZeRO cuts them
memory.py    bytes a rank, by phase of a step and by part
network.py   bytes over the network, by collective
gpus.py      peak figures of GPUs, and where they come from
clock.py     seconds a step: the slowest of arithmetic, memory and network
choose.py    every ZeRO stage, head and loss; which fit, which is fastest, what would fit
show.py      tables
"""
