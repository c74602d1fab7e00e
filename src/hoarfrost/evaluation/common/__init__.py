"""What every evaluation shares: the journal, the header of a result, tables, figures, intervals."""
