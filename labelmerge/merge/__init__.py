"""Which labels mean the same, and the columns that training and evaluation see."""
