<?php
// Shows which parts this server was composed of; asks the database, where
// there is one, and answers 503 until it does.
header('Content-Type: text/plain');
$parts = ['apache' => 'apache2', 'php' => 'php', 'mysql' => 'mariadb-server'];
foreach ($parts as $part => $package) {
    $here = file_exists("/var/lib/dpkg/info/$package.list");
    printf("%s: %s\n", $part, $here ? 'yes' : 'no');
    if ($part === 'mysql' && $here) {
        try {
            $database = new mysqli('localhost', 'www-data');
            $row = $database->query('SELECT VERSION(), USER()')->fetch_row();
            printf("database: %s, as %s\n", $row[0], $row[1]);
        } catch (mysqli_sql_exception $error) {
            http_response_code(503);
            printf("database: %s\n", $error->getMessage());
        }
    }
}
printf("machine: %s\n", trim(file_get_contents('/etc/machine-id')));
