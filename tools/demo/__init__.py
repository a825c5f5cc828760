"""How the demo model is made, `python -m tools.demo VERB`. README.md describes it.

world/       the drawn world: subjects, places, styles, triplets
shards/      drawn data on disk, and a run's samples from it
parts/       one trainer for each part of the model
training/    configs, the loop of a part, Muon, teachers
judge/       tasks, the judge, scores, the report
verbs/       the command line
configs/     parts and stages
"""
