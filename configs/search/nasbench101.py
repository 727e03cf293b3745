"""The same search on NAS-Bench-101, among the cells of the table."""

space = dict(type='nasbench101')
strategy = dict(type='nasgem', initial=10)
evaluator = dict(type='tabular', accuracy='108ep_valid', seconds='final_training_time')
fidelity = dict(epochs=108)

search = dict(evaluations=100, batch=5, ahead=0, seed=0)
workers = dict(count=0)
confirm = dict(top=0)  # a table answers every training seed alike
