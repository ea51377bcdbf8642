<?php
// Waits, or computes without end, in a function whose name the logs show.
function dawdle(): void
{
    if (isset($_GET['spin'])) {
        for (;;) {
        }
    }
    sleep((int) ($_GET['seconds'] ?? 2));
}
dawdle();
echo "slept\n";
