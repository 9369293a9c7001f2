def load():
    import trainers.begin, trainers.records.report, agents.backends
