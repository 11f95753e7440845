-- Asks the service whether a request may pass: the action `lua.authz`, which sets txn.authz to "allow", or answers.
-- The answer is told by status: 200 is the only yes. Whatever goes wrong here leaves txn.authz unset, which is a no.

local url = os.getenv("AUTHZ_CHECK")
local token = os.getenv("AUTHZ_GATEWAY_TOKEN")
local told_to_api = { "x-authz-token-id", "x-authz-owner", "x-authz-permission" }
local told_to_client = { "www-authenticate", "content-type", "cache-control", "retry-after" }
local milliseconds = 500 -- of each try: HAProxy makes up to four

if url == nil or url == "" then
    error("AUTHZ_CHECK is not set: write `setenv AUTHZ_CHECK` into the section `global`")
end

-- All values of a header, in their order: two of one name are for the service to refuse.
local function values_of(headers, name)
    local found = {}
    local values = headers[name]
    if values ~= nil then
        local at = 0
        while values[at] ~= nil do
            found[#found + 1] = values[at]
            at = at + 1
        end
    end
    return found
end

local function question(txn)
    local headers = txn.http:req_get_headers()
    local asked = {
        ["x-original-method"] = { txn.f:method() },
        ["x-original-uri"] = { txn.f:pathq() },
        ["x-real-ip"] = { tostring(txn.f:src() or "") },
    }
    for _, name in ipairs({ "authorization", "x-request-id" }) do
        local values = values_of(headers, name)
        if #values > 0 then
            asked[name] = values
        end
    end
    if token ~= nil and token ~= "" then
        asked["x-authz-gateway"] = { token }
    end
    return asked
end

local function refuse(txn, status, answer)
    local reply = txn:reply({ status = status })
    if answer ~= nil then
        for _, name in ipairs(told_to_client) do
            for _, value in ipairs(values_of(answer.headers or {}, name)) do
                reply:add_header(name, value)
            end
        end
        reply:set_body(answer.body or "")
    else
        reply:add_header("retry-after", "1")
        reply:add_header("content-type", "application/json")
        reply:set_body('{"decision":"deny","reason":"cannot_decide"}')
    end
    txn:done(reply)
end

core.register_action("authz", { "http-req" }, function(txn)
    local answer = core.httpclient():get({ url = url, headers = question(txn), timeout = milliseconds })
    local status = answer and answer.status or 0
    if status == 200 then
        for _, name in ipairs(told_to_api) do
            txn.http:req_del_header(name)
            for _, value in ipairs(values_of(answer.headers, name)) do
                txn.http:req_add_header(name, value)
            end
        end
        txn:set_var("txn.authz", "allow")
    elseif status >= 400 and status < 500 then
        refuse(txn, status, answer)
    else
        refuse(txn, 503, nil)
    end
end, 0)
