<?php
// What pages over phpredis do, and what they must see.
//
//     php calls.php CASE HOST PORT NUMBER
//
// It ends with 1 at the first thing that is not as it would be straight at Redis.

declare(strict_types=1);

[, $case, $host, $port, $number] = $argv;
$port = (int) $port;

set_error_handler(function (int $level, string $text, string $file, int $line): never {
    throw new ErrorException($text, 0, $level, $file, $line);
});
set_exception_handler(function (Throwable $thrown): never {
    fwrite(STDERR, "$thrown\n");
    exit(1);
});

/** What came must be what was wanted, of the same type. */
function same(mixed $wanted, mixed $came): void
{
    if ($wanted !== $came) {
        $shown = fn (mixed $it): string => substr(var_export($it, true), 0, 500);
        throw new Exception("{$shown($came)} instead of {$shown($wanted)}");
    }
}

function client(): Redis
{
    global $host, $port;
    $own = new Redis();
    same(true, $own->connect($host, $port, 20.0, null, 0, 20.0));
    return $own;
}

/** Adds one to a number that others add to meanwhile. */
function add_one(Redis $own, string $key): void
{
    do {
        same(true, $own->watch($key));
        $count = (int) $own->get($key);
        $done = $own->multi()->set($key, (string) ($count + 1))->get($key)->exec();
    } while ($done === false);
    same([true, (string) ($count + 1)], $done);
}

/** One page: two connections, one of them to another database. */
function page(string $number): void
{
    $own = client();
    $key = "page:$number";
    same(true, $own->ping());
    same(false, $own->get($key));
    same(true, $own->set($key, "value $number"));
    same("value $number", $own->get($key));
    same(3, $own->rPush("$key:list", "a $number", 'b', 'c'));
    same(["a $number", 'b', 'c'], $own->lRange("$key:list", 0, -1));
    same(2, $own->hSet("$key:hash", 'a', $number) + $own->hSet("$key:hash", 'b', '2'));
    same(['a' => $number, 'b' => '2'], $own->hGetAll("$key:hash"));
    same([$number, 'two'], $own->eval('return ARGV', [$number, 'two'], 0));
    same(false, $own->incr("$key:list"));
    same('WRONGTYPE', strtok($own->getLastError(), ' '));

    $pipe = $own->multi(Redis::PIPELINE);
    $wanted = [];
    for ($step = 0; $step < 50; $step++) {
        $pipe->set("$key:$step", "$number-$step")->get("$key:$step")->get('absent');
        array_push($wanted, true, "$number-$step", false);
    }
    same($wanted, $pipe->exec());

    $all = $own->multi()->set("$key:count", '41')->incr("$key:count")->get($key)->exec();
    same([true, 42, "value $number"], $all);
    same(true, $own->multi()->set($key, 'never')->discard());
    same("value $number", $own->get($key));
    add_one($own, 'visits');

    $large = str_repeat(sprintf('%08d', $number), 25_000);
    same(true, $own->set("$key:large", $large));
    same($large, $own->get("$key:large"));

    $other = client();
    same(true, $other->select(1));
    same(false, $other->get($key));
    same(true, $other->set($key, "elsewhere $number"));
    same("value $number", $own->get($key));
    same("elsewhere $number", $other->get($key));
    same(true, $other->close());
    same(true, $own->close());
}

/** Pages that leave their connection to the next one in the same process, in the database where it is. */
function persistent(string $number): void
{
    global $host, $port;
    $ids = [];
    $here = false;
    for ($turn = 0; $turn < 30; $turn++) {
        $own = new Redis();
        same(true, $own->pconnect($host, $port, 20.0, 'kept', 0, 20.0));
        same($here, $own->get('here'));
        $ids[] = $own->rawCommand('CLIENT', 'ID');
        same(true, $own->select($turn % 3));
        $here = "$number-$turn";
        same(true, $own->set('here', $here));
        same([$here], $own->multi()->get('here')->exec());
        add_one($own, 'visits');
        same((string) (1 + intdiv($turn, 3)), $own->get('visits'));
        unset($own);
    }
    same(1, count(array_unique($ids)));
}

/** A page of a visitor who opens several at once: each waits until the one before has left the session. */
function session(string $number): void
{
    global $host, $port;
    ini_set('session.save_handler', 'redis');
    ini_set('session.save_path', "tcp://$host:$port?timeout=20&read_timeout=20");
    ini_set('session.use_cookies', '0');
    ini_set('session.cache_limiter', '');
    ini_set('redis.session.locking_enabled', '1');
    ini_set('redis.session.lock_retries', '-1');
    session_id('visitor');
    same(true, session_start());
    $_SESSION['pages'][] = $number;
    same(true, session_write_close());
}

$case($number);
