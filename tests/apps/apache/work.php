<?php
// Work for the processor, once compiled.
$rows = [];
for ($i = 0; $i < 2000; $i++) {
    $rows[] = ['id' => $i, 'name' => "row $i"];
}
echo hash('sha256', json_encode($rows)), "\n";
