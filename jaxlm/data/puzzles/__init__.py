"""Small worlds in which an ability can be watched as it comes: every batch is a function of (seed, cursor), drawn anew
and never read twice (`docs/laboratory.md`)."""
