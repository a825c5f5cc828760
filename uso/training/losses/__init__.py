"""What a step minimises.

flow.py       rectified flow
teacher.py    targets from the network's own answers
reward.py     style reward
seeds.py      random numbers by purpose and position
"""
