#!/usr/bin/env escript
%%! -hidden
%% Runs before a node of the broker starts, and ends well when it may. Two mistakes are kept from happening:
%% a node with another cookie, or with nobody in sight, would find no cluster to join and quietly become a
%% broker of its own, whose queues nobody else hears of.
%%
%% Called with this node's address, its name, and the names of all nodes. While it waits, it answers to the name
%% gather@HOST, so that nodes that start together see each other before any of them is a broker.

-define(PATIENCE_SECONDS, 10).

main([Address, Self | Everybody]) ->
    {ok, Interface} = inet:parse_address(Address),
    ok = application:set_env(kernel, inet_dist_use_interface, Interface),
    start(list_to_atom("gather@" ++ host(Self)), 20),
    Others = [Name || Name <- Everybody, Name =/= Self],
    wait(Self, Others, #{}, 0);
main(_) ->
    stop("usage: gather.escript ADDRESS NODE NODE...").

%% An earlier one of us may not have been forgotten yet.
start(Name, Tries) ->
    case net_kernel:start([Name, shortnames]) of
        {ok, _} -> ok;
        {error, _} when Tries > 0 -> timer:sleep(500), start(Name, Tries - 1);
        {error, _} -> stop("its name cannot be registered on this machine.")
    end.

%% Refusals counts, by node, for how many seconds in a row it was there and would not talk to us.
wait(Self, Others, Before, Seconds) ->
    Sights = [{Other, look(host(Other))} || Other <- Others],
    Refusals = maps:from_list([{Other, maps:get(Other, Before, 0) + 1} || {Other, refuses} <- Sights]),
    case [Other || {Other, Count} <- maps:to_list(Refusals), Count >= ?PATIENCE_SECONDS] of
        [] -> ok;
        [Other | _] ->
            stop(Other ++ " is there and refuses this node: their secrets differ. Give every node the same "
                 "broker-cookie and start them again.")
    end,
    Seen = length([Other || {Other, talks} <- Sights]),
    %% Who has data knows the cluster, and waits for it better than we can.
    Enough = has_data(Self) orelse (Seen + 1) * 2 > length(Others) + 1,
    if
        Enough andalso map_size(Refusals) =:= 0 -> halt(0);
        Seconds rem 30 =:= 10, map_size(Refusals) =:= 0 ->
            say(["This node of the broker is new and sees too few others to join; it waits for ",
                 lists:join(", ", Others), "."]);
        true -> ok
    end,
    timer:sleep(1000),
    wait(Self, Others, Refusals, Seconds + 1).

%% What is seen of a host: somebody who talks to us, somebody who refuses to, or nobody.
look(Host) ->
    Known = case erl_epmd:names(Host) of {ok, Found} -> [Name || {Name, _} <- Found]; {error, _} -> [] end,
    case [list_to_atom(Name ++ "@" ++ Host) || Name <- ["rabbit", "gather"], lists:member(Name, Known)] of
        [] -> away;
        Nodes -> case lists:any(fun(Node) -> net_adm:ping(Node) =:= pong end, Nodes) of
            true -> talks;
            false -> refuses
        end
    end.

has_data(Self) ->
    Base = os:getenv("RABBITMQ_MNESIA_BASE", filename:join(os:getenv("HOME"), "mnesia")),
    case file:list_dir(filename:join(Base, Self)) of
        {ok, [_ | _]} -> true;
        _ -> false
    end.

host(Name) -> lists:last(string:split(Name, "@")).

stop(Why) ->
    say(["This node of the broker cannot start: ", Why]),
    halt(1).

say(Words) -> io:format(standard_error, "~s~n", [Words]).
