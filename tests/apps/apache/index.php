<?php
echo "hello from ", PHP_SAPI === 'apache2handler' ? 'mod' : 'fpm', "\n";
