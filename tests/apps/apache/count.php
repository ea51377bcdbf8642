<?php
// Counts in a database, in a file under a lock and in the visitor's session; all three must agree.
$base = new PDO('sqlite:/data/base');
$base->exec('PRAGMA busy_timeout = 5000');
$base->exec('CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY)');
$file = fopen('/data/count', 'c+');
flock($file, LOCK_EX);
$count = (int) fgets($file) + 1;
rewind($file);
fwrite($file, "$count\n");
fflush($file);
$base->exec('INSERT INTO visits DEFAULT VALUES');
$rows = $base->query('SELECT COUNT(*) FROM visits')->fetchColumn();
flock($file, LOCK_UN);
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
echo "$count $rows ", $_SESSION['visits'], "\n";
