"""The hands of one machine: a keeper that forks, watches and ends the processes of a mesh."""
