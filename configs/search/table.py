"""A search among the cells of a table of your own (docs/tables.md): name the file and the column to maximise."""

space = dict(type='table')
strategy = dict(type='nasgem', initial=10)
evaluator = dict(type='tabular', path='mine.csv', accuracy='accuracy')
fidelity = dict(epochs=1)

search = dict(evaluations=100, batch=5, ahead=0, seed=0)
workers = dict(count=0)
confirm = dict(top=0)  # a table answers every training seed alike
