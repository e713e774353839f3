"""What leaves a run: the HTML report, the model card, the plots and the terminal table.

This room knows scorecards and words, not models: everything that it shows arrives in a
`ReportContent`. Answers are untrusted text here, and stay text.
"""
